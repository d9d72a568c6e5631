"""Draw all pictures: ``nox -s pictures``, or ``python -m docs.pictures``."""

from docs.pictures import window
from docs.pictures.style import THEMES, write


def main() -> None:
    """Draw each in each theme."""
    seen = window.run()
    for theme in THEMES:
        write(window.draw(seen, theme), "window", theme, seen.digest)


if __name__ == "__main__":
    main()
