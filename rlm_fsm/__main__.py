"""``rlm-fsm`` and ``python -m rlm_fsm``: the command line."""


def main() -> int:
    """The command line's exit code. Ctrl-C while it is still being loaded is no traceback."""
    try:
        from effects.cli import main as command
    except KeyboardInterrupt:
        return 130
    return command()


if __name__ == "__main__":
    raise SystemExit(main())
