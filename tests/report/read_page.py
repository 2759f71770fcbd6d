"""Read a report as a browser would."""

import json
from html.parser import HTMLParser


class Page(HTMLParser):
    """The elements of a page, and what stands in its scripts."""

    def __init__(self, path):
        super().__init__()
        self.elements, self.texts = [], {}
        self.feed(path.read_text("utf-8"))

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, text):
        tag, attributes = self.elements[-1] if self.elements else ("", {})
        key = attributes.get("id", tag)
        self.texts[key] = self.texts.get(key, "") + text

    @property
    def data(self):
        return json.loads(self.texts["data"])
