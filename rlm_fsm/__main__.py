"""``python -m rlm_fsm``: the command line, as ``rlm-fsm`` is. `effects.start` has the rest."""

from effects.start import main

if __name__ == "__main__":
    raise SystemExit(main())
