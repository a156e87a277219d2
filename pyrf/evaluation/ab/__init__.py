"""Blind judging side by side: what raters are shown, their votes, and what these say."""
