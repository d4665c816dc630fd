from markupsafe import Markup

from cxrlab.report import Section


def _build(context) -> Markup:
    rows = Markup("").join(
        Markup("<li>{}: {}</li>").format(label, metrics["auroc"].value)
        for label, metrics in context.result.labels.items()
    )
    return Markup("<p>What our lab adds.</p><ul>{}</ul>").format(rows)


our_section = Section(id="our-lab", title="From our lab", build=_build)
