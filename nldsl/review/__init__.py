"""What a careful reader says about a legal program: what blows up, collapses, never fires, looks ahead."""

from nldsl.review.check import check, review

__all__ = ["check", "review"]
