"""The tests: a package, or another one of this name that is installed would be found instead of them."""
