"""The section of the page about groups of images: forest plot, gaps, equalised odds, AUROC within groups."""

from collections.abc import Iterator, Sequence

from markupsafe import Markup

from cxrlab.evaluation.results import EqualisedOdds, EvaluationResult, Gap, SubgroupRow
from cxrlab.evaluation.stratified import StratifiedAuroc
from cxrlab.metrics.bootstrap import Estimate
from cxrlab.report import text
from cxrlab.report.figures import groups
from cxrlab.report.formatting import DASH, MINUS, bounds, count, counted, number, p, percent
from cxrlab.report.html import folded_html, paragraph_html, part, table_html
from cxrlab.report.section import PageContext
from cxrlab.report.tables import Cell, Row, Table, estimate_cell, label_name

_NUM_GAPS = 6  # that are shown
_NUM_STRATIFIED = 8  # that are shown
_BORROWED = "The groups hold no images without the finding: those of all groups stand in for them."
_PAIRS = (
    "Groups that share two values, as far as they are large enough. They are described, not tested: their "
    "many differences would take from the tests above what these can show."
)


def subgroup_section(context: PageContext) -> Markup | None:
    """Return the section; None where no covariate makes groups."""
    result = context.result
    figure = context.figure(
        "forest",
        groups.forest(result),
        alt="AUROC, sensitivity and specificity of each subgroup with their intervals.",
        caption="Each group beside the value of all images (dashed), with intervals.",
    )
    by_covariate = subgroup_tables(result.subgroups)
    if not figure and not by_covariate:
        return None
    found = [part("how", text.HOW_TO_READ["subgroups"]), figure, *_gaps(result), *_within(result)]
    found += [folded_html(f"All groups of {covariate}", table) for covariate, table in by_covariate]
    by_pair = subgroup_tables(result.subgroup_pairs, _PAIRS)
    found += [folded_html(f"Groups by {covariates}", table) for covariates, table in by_pair]
    return Markup("\n").join(piece for piece in found if piece)


def _gaps(result: EvaluationResult) -> Iterator[Markup]:
    table = gap_table(result.gaps, result.num_gap_tests)
    if table is not None:
        yield _heading("Gaps between groups")
        yield table_html(table)
    if result.equalised_odds:
        yield _heading("Equalised odds")
        for odds in result.equalised_odds:
            yield paragraph_html(equalised_odds(odds))


def _within(result: EvaluationResult) -> Iterator[Markup]:
    """Yield AUROC within groups: the labels for which it differs, and folded all of them."""
    if not result.stratified:
        return
    yield _heading("AUROC within groups")
    yield part(
        "small",
        "Where a finding is more common in one group, such as one view, to tell the groups apart already "
        "ranks images. Within groups, images are ranked against others of their own group only: what is left "
        "there does not come from the group.",
    )
    shown = sorted(
        (row for row in result.stratified if row.is_shown), key=lambda row: -abs(row.difference.value or 0.0)
    )
    covariates = " or ".join(dict.fromkeys(row.covariate for row in result.stratified))
    if shown:
        yield table_html(stratified_table(shown[:_NUM_STRATIFIED]))
    else:
        yield paragraph_html(f"Within groups of the same {covariates}, no difference of AUROC is shown.")
    yield folded_html("AUROC within groups of every label", stratified_table(result.stratified))


def _heading(title: str) -> Markup:
    return Markup("<h3>{}</h3>").format(title)


def subgroup_tables(rows: Sequence[SubgroupRow], caption: str = "") -> list[tuple[str, Table]]:
    """Return a table for each covariate."""
    columns = ["label", "group", "images", "patients", "positives", "AUROC", "sensitivity", "specificity"]
    tables: dict[str, list[Row]] = {}
    shared = {row.covariate for row in rows if row.negatives_from == "all"}
    for row in rows:
        cells = [Cell(str(row.group)), Cell(count(row.images)), Cell(count(row.patients)), _positives(row)]
        cells += map(estimate_cell, (row.auroc, row.sensitivity, row.specificity))
        name = f"macro mean of {row.num_labels}" if row.label == "macro" else row.label
        line = Row(name, cells, mark=row.caveat, strong=row.label == "macro")
        tables.setdefault(row.covariate, []).append(line)
    return [
        (
            covariate,
            Table(
                columns,
                lines,
                " ".join(filter(None, [caption, _BORROWED if covariate in shared else ""])),
                frozenset({1}),
            ),
        )
        for covariate, lines in tables.items()
    ]


def _positives(row: SubgroupRow) -> Cell:
    owners = row.positive_patients
    return Cell(count(row.positives), "" if owners is None else f"of {counted(owners, 'patient')}")


def gap_table(gaps: Sequence[Gap], num_tested: int) -> Table | None:
    """Return the clearest gaps between groups, those that were shown first; None without any.

    Args:
        gaps: The largest of each covariate, metric and label.
        num_tested: Differences that were tested to find them.
    """
    if not gaps:
        return None
    columns = ["label", "covariate", "metric", "groups", "difference", "p, Holm", "in words"]
    chosen = sorted(gaps, key=_rank)[:_NUM_GAPS]
    caption = (
        f"{counted(num_tested, 'difference')} between two groups {'was' if num_tested == 1 else 'were'} "
        "tested: each pair of groups of a covariate, in each metric of each label, where enough patients are "
        "behind both values (evaluation.min_gap_patients). p is corrected for all of them."
    )
    if len(chosen) < len(gaps):
        caption += f" The {len(chosen)} clearest:"
    return Table(columns, [_gap_row(gap) for gap in chosen], caption, frozenset({1, 2, 3, 6}))


def _gap_row(gap: Gap) -> Row:
    cells = [
        Cell(str(gap.covariate)),
        Cell("AUROC" if gap.metric == "auroc" else gap.metric),
        Cell(f" {MINUS} ".join(map(str, gap.groups))),
        estimate_cell(gap.difference),
        Cell(p(gap.p_holm)),
        Cell(gap.description),
    ]
    return Row(label_name(gap.label), cells)


def _rank(gap: Gap) -> tuple[float, float]:
    """Return what to sort by: gaps that were shown by their size, the others, mostly chance, by p."""
    if gap.outcome in ("better", "worse") and gap.difference.value is not None:
        return (0, -abs(gap.difference.value))
    return (1, 1.0 if gap.p is None else gap.p)


def equalised_odds(odds: EqualisedOdds) -> str:
    """Return what a covariate's gaps of sensitivity and false-positive rate say, in one sentence."""
    label = "mean of the labels" if odds.label == "macro" else odds.label
    return (
        f"Equalised odds by {odds.covariate} ({label}): largest gap in sensitivity "
        f"{_apart(odds.sensitivity, odds.sensitivity_groups)}, in false-positive rate "
        f"{_apart(odds.false_positive_rate, odds.false_positive_rate_groups)}; {_shown(odds)}."
    )


def _apart(difference: Estimate, between: tuple[str, str]) -> str:
    """Return a gap without its sign, and which group has more."""
    first, second = between
    if difference.value is not None and difference.value < 0:
        difference, first, second = -difference, second, first
    around = bounds(difference)
    return f"{number(difference.value)} ({f'{around}; ' if around else ''}{first} above {second})"


def _shown(odds: EqualisedOdds) -> str:
    if not odds.is_difference_shown:
        return "no difference shown"
    names = {"sensitivity": "sensitivity", "specificity": "false-positive rate"}
    where: dict[str, list[str]] = {}
    for label, metric in odds.shown:
        where.setdefault(names[metric], []).append("the mean" if label == "macro" else label)
    shown = " and ".join(f"{metric} ({', '.join(labels)})" for metric, labels in where.items())
    return f"a difference is shown in {shown}"


def stratified_table(rows: Sequence[StratifiedAuroc]) -> Table:
    """Return AUROC over all pairs of images and over those within a group."""
    columns = ["label", "within groups of", "AUROC", "AUROC within groups", "difference", "p, Holm",
               "pairs within groups", "patients"]  # fmt: skip
    lines = [
        Row(
            label_name(row.label),
            [
                Cell(row.covariate),
                estimate_cell(row.auroc),
                estimate_cell(row.within),
                estimate_cell(row.difference),
                Cell(p(row.p_holm)),
                Cell(DASH if row.share_of_pairs is None else percent(row.share_of_pairs, 0)),
                Cell(DASH if row.label == "macro" else count(row.patients)),
            ],
            strong=row.label == "macro",
        )
        for row in rows
    ]
    return Table(columns, lines, texts=frozenset({1}))
