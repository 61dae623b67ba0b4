"""Where `altaprofiles` and `python -m altaprofiles` start."""

from __future__ import annotations

import sys
from importlib.util import find_spec


def main() -> None:
    """Run the command line, or say what it takes to have one."""
    missing = [name for name in ("click", "rich") if find_spec(name) is None]
    if missing:
        sys.exit(
            f"altaprofiles: the command line needs {' and '.join(missing)}; "
            f"install it with: pip install 'altaprofiles[cli]'"
        )
    try:
        from .cli import cli
        from .cli.app import settle_streams

        settle_streams()
        cli(prog_name="altaprofiles")
    except KeyboardInterrupt:
        # So early that there is nothing to say of it.
        sys.exit(130)


if __name__ == "__main__":
    main()
