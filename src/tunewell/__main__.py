"""`python -m tunewell` is `tunewell`."""

from tunewell.cli import main

if __name__ == "__main__":
    main()
