"""The tests are a package, so that an installed package of the same name isn't found instead of them."""
