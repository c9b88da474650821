"""What a test reads of a page that the program wrote."""

import re
from html.parser import HTMLParser

ADDRESSES = ("src", "href", "xlink:href", "srcset")
ALONE = ("meta", "img", "br", "link", "path", "use", "hr", "rect")  # that need no end


class Page(HTMLParser):
    """Text without styles, its white space folded; addresses, tags, and the tags that are open at the end."""

    def __init__(self, html: str):
        super().__init__()
        self.text, self.addresses, self.tags, self.open = "", [], set(), []
        self.feed(html)
        self.text = re.sub(r"\s+", " ", self.text)

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        self.addresses += [value for name, value in attributes if name in ADDRESSES]
        if tag not in ALONE:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in ("path", "use", "rect"):
            assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.text += data
