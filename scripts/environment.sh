# Sourced by the other scripts: makes the virtual environment .venv when needed, and activates it.
#
#   source scripts/environment.sh        the package itself
#   source scripts/environment.sh test   with the tools for tests
#
# PYTHON chooses the interpreter (default: python3); VENV another folder than .venv, also an existing environment.

cd "$(dirname "${BASH_SOURCE[0]}")/.."
extra="${1:-}"
VENV="${VENV:-.venv}"
stamp="$VENV/.nnunet_gmabs${extra:+-$extra}"

if ! [ -e "$VENV/bin/activate" ]; then
    "${PYTHON:-python3}" -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python 3.10 or newer is needed; choose one with PYTHON=/path/to/python")'
    "${PYTHON:-python3}" -m venv "$VENV"
fi
# shellcheck disable=SC1091
source "$VENV/bin/activate"

# Again whenever the requirements may have changed.
if ! [ -e "$stamp" ] || [ setup.py -nt "$stamp" ] || [ pyproject.toml -nt "$stamp" ]; then
    echo "Installing into $VENV (the first time: torch with its CUDA libraries, 6 GB, a few minutes) ..."
    # -qq: errors only
    python -m pip install -qq --disable-pip-version-check -e ".${extra:+[$extra]}"
    touch "$stamp"
fi
