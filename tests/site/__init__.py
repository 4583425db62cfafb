"""The documentation site: what it is made of, and the site that scripts/site has built."""
