"""Where `opx` begins: imports nothing until it is called.

The processes that a long command spreads its work over run this script's head again; what they would import for nothing is
more than half of what they need to begin.
"""


def main() -> None:
    """Run `opx`."""
    from pipeline.cli.main import app

    app()
