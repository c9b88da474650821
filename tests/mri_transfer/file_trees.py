"""File systems of other machines, as small trees."""


def write(root, files):
    """Write each text under its path below `root`; returns `root`."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root
