"""A parser of the pages, for the tests of both."""

import re
from html.parser import HTMLParser

import pytest

VOID = {"meta", "img", "input"}


class Page(HTMLParser):
    """Elements, cards and text of a page; fails on tags that do not nest."""

    def __init__(self, html):
        super().__init__()
        self.open, self.elements, self.cards, self.texts, self.html = [], [], [], [], html
        self.feed(html)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        attributes = {key: value or "" for key, value in attrs}
        assert len(attributes) == len(attrs)
        self.elements.append((tag, attributes))
        if tag not in VOID:
            self.open.append((tag, attributes.get("class", "")))
        if self.inside("cards"):
            if tag == "li":
                self.cards.append({"class": attributes["class"].split(), "text": []})
            elif tag == "img" or attributes.get("class") == "blank":
                self.cards[-1]["picture"] = attributes
            elif attributes.get("class") == "name":
                self.cards[-1]["title"] = attributes["title"]

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop()[0] == tag

    def handle_data(self, data):
        self.texts.append(data)
        if self.cards and self.inside("cards") and data.strip():
            self.cards[-1]["text"].append(data)

    def inside(self, name):
        return any(name in classes.split() for _, classes in self.open)

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]

    def values(self, key):
        return [attributes[key] for _, attributes in self.elements if key in attributes]

    @property
    def tags(self):
        return [tag for tag, _ in self.elements]

    @property
    def text(self):
        return " ".join("".join(self.texts).split())

    def check_closed(self):
        """Nothing is loaded from elsewhere, and nothing runs."""
        for key in ("src", "href", "srcset", "action", "data", "poster", "background"):
            for value in self.values(key):
                assert value.startswith(("#", "data:image/jpeg;base64,")), (key, value)
        assert not {"script", "link", "iframe", "object", "embed", "base", "a"} & set(self.tags)
        assert "<script" not in self.html
        assert "@import" not in self.html
        assert not re.search(r"url\((?!#)|https?:", self.html)
        for _, attributes in self.elements:
            assert not [key for key in attributes if key.startswith("on")]
        (policy,) = [meta["content"] for meta in self.all("meta") if "http-equiv" in meta]
        assert policy.startswith("default-src 'none'")
        assert "script-src" not in policy


@pytest.fixture(scope="session")
def parse():
    """Return the function that reads a page from its path."""
    return lambda path: Page(path.read_text(encoding="utf-8"))
