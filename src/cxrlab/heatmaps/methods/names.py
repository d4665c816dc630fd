"""Which methods there are, and what they are called."""

import difflib
from collections.abc import Sequence

from cxrlab.errors import ConfigError

# Class of each method in the package.
CAM_METHODS = {
    "gradcam": "GradCAM",
    "gradcam++": "GradCAMPlusPlus",
    "hirescam": "HiResCAM",
    "layercam": "LayerCAM",
    "eigencam": "EigenCAM",
}

METHODS = (*CAM_METHODS, "integrated_gradients", "occlusion", "gradient_shap")

# How they are written on pages.
METHOD_NAMES = {
    "gradcam": "Grad-CAM",
    "gradcam++": "Grad-CAM++",
    "hirescam": "HiRes-CAM",
    "layercam": "LayerCAM",
    "eigencam": "Eigen-CAM",
    "integrated_gradients": "Integrated gradients",
    "occlusion": "Occlusion",
    "gradient_shap": "SHAP (expected gradients)",
}


def check_methods(names: str | Sequence[str], key: str) -> list[str]:
    """Return names of methods as a list.

    Args:
        names: One or several of ``METHODS``, a text with commas between them too.
        key: Of the config, for the message.

    Raises:
        ConfigError: If a name is unknown, stands twice, or there is none.
    """
    listed = [one.strip() for one in names.split(",")] if isinstance(names, str) else list(names)
    for name in listed:
        if name not in METHODS:
            near = difflib.get_close_matches(name.lower().replace("-", "").replace("_", ""), METHODS, n=1)
            hint = f" Did you mean {near[0]}?" if near else ""
            raise ConfigError(f"{key}={name} is no method; choose from {', '.join(METHODS)}.{hint}")
    if not listed or len(set(listed)) != len(listed):
        raise ConfigError(f"{key}={listed} must name at least one method, and none twice.")
    return listed
