"""Which generalists can be asked here: the one in the package, and what lies in the folder for weights."""

from __future__ import annotations

from nnunet_gmabs.doctor import ERROR, OK, Finding
from nnunet_gmabs.errors import InputError


def check_generalists() -> list[Finding]:
    """The embedded network must load; files of published models are named, and must be what their name says.

    Returns:
        One finding for the embedded network, one for the folder of weights (none in it is fine: nothing needs them),
        and one for each file with another content than the published one.
    """
    from nnunet_gmabs.files import sha256
    from nnunet_gmabs.generalist.embedded import EmbeddedGeneralist
    from nnunet_gmabs.generalist.sam_weights import FOLDER_VARIABLE, SHA256, USUAL_FILES, weights_folder

    try:
        EmbeddedGeneralist()
        findings = [Finding("generalist", OK, "embedded (in the package)")]
    except InputError as error:
        findings = [Finding("generalist", ERROR, str(error), "install nnunet_gmabs again")]
    folder, found = weights_folder(), []
    for model, (name, source) in USUAL_FILES.items():
        path = folder / name
        if not path.is_file():
            continue
        if sha256(path) == SHA256[name]:
            found.append(model)
        else:
            findings.append(Finding("weights", ERROR, f"{path} is not the published file", f"download {source} again"))
    where = f"of segment-anything in {folder} ({FOLDER_VARIABLE} names another folder)"
    findings.append(Finding("weights", OK, f"{', '.join(found) or 'none'} {where}"))
    return findings
