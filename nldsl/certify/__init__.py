"""Certify: a compiled program is held against the interpreter, and what was compared is written down."""

from nldsl.certify.certificate import Certificate, CheckResult, Difference, Section
from nldsl.certify.verify import verify

__all__ = ["Certificate", "CheckResult", "Difference", "Section", "verify"]
