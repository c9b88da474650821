"""A store's presentation: its page, figures, contact sheet and table of people.

Reads stores, writes none.
"""
