"""The command gmabs: one subcommand for each station of the loop."""

from __future__ import annotations

import argparse
import errno
import importlib
import sys
from collections.abc import Sequence

from nnunet_gmabs import __version__
from nnunet_gmabs.errors import InputError

# Each module in nnunet_gmabs.commands has a docstring (the help text), add_arguments(parser) and
# run(args) -> exit code. Heavy imports belong inside run, so that help and completion are instant.
COMMANDS = {
    "doctor": "doctor",
    "demo": "demo",
    "import": "import_labels",
    "sparsify": "sparsify",
    "prepare": "prepare",
    "status": "status",
    "ask": "ask",
    "annotate": "annotate",
    "merge": "merge",
    "unmerge": "unmerge",
    "embed": "embed",
    "relabel": "relabel",
    "evaluate": "evaluate",
    "export": "export",
    "postprocessing": "postprocessing",
    "report": "report",
}
NO_ACCESS = (errno.EACCES, errno.EPERM, errno.EROFS)
DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


def build_parser() -> argparse.ArgumentParser:
    """The parser with all subcommands; each one's help is its module's docstring."""
    parser = argparse.ArgumentParser(
        prog="gmabs",
        description="Train nnU-Net from a few labelled planes in a few scans.",
        epilog="gmabs COMMAND --help says more, with examples. Training and prediction are nnU-Net's own commands.",
    )
    parser.add_argument("--version", action="version", version=f"nnunet_gmabs {__version__}")
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, module_name in COMMANDS.items():
        module = importlib.import_module(f"nnunet_gmabs.commands.{module_name}")
        text = (module.__doc__ or "").strip()
        subparser = subparsers.add_parser(
            name,
            help=text.splitlines()[0],
            description=text,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add_arguments(subparser)
        subparser.set_defaults(run=module.run)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one subcommand; bad input, or a disk that says no, ends with its message on stderr and exit code 2."""
    args = build_parser().parse_args(arguments)
    try:
        return args.run(args) or 0
    except (InputError, OSError) as error:
        message = str(error) if isinstance(error, InputError) else disk_message(error)
        if message is None:
            raise
        print(f"gmabs {args.command}: error: {message}", file=sys.stderr)
        return 2


def disk_message(error: OSError) -> str | None:
    """The path and the cure, for a file that may not be read or written or a full disk; None for anything else."""
    if error.errno in NO_ACCESS and error.filename:
        return f"{error.filename}: {error.strerror}; allow reading and writing there"
    if error.errno in DISK_FULL:
        return f"{error.filename or 'the disk'}: {error.strerror}; make room, then run this again"
    return None


if __name__ == "__main__":
    sys.exit(main())
