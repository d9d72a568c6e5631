"""Draw all pictures: ``nox -s pictures``, or ``python -m docs.pictures``."""

from docs.pictures import throughput, window
from docs.pictures.style import THEMES, write


def main() -> None:
    """Draw each in each theme."""
    seen, figures = window.run(), throughput.figures()
    for theme in THEMES:
        write(window.draw(seen, theme), "window", theme, seen.digest)
        write(throughput.draw(figures, theme), "throughput", theme, throughput.digest_of(figures))


if __name__ == "__main__":
    main()
