"""Certify: a compiled program is held against the interpreter, and what was compared is written down."""

from nldsl.certify.artefact import CertificateWarning, load_compiled, standing
from nldsl.certify.certificate import Certificate, CheckResult, Difference, Section
from nldsl.certify.rules import RuleCertificate, rules_of, verify_rules
from nldsl.certify.verify import verify
from nldsl.spec.lone_rules import rules_in

__all__ = [
    "Certificate",
    "CertificateWarning",
    "CheckResult",
    "Difference",
    "RuleCertificate",
    "Section",
    "load_compiled",
    "rules_in",
    "rules_of",
    "standing",
    "verify",
    "verify_rules",
]
