"""What a store shows of itself: its page, figures, contact sheet and table of people.

Reads stores, writes none.
"""
