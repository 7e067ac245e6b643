"""`python -m facetmesh.cli` is `facetmesh`."""

from facetmesh.cli.main import main

if __name__ == "__main__":
    main()
