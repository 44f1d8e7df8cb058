"""``python -m rlm_fsm``: the command line."""

from effects.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
