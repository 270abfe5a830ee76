"""Closed forms of inner problems, worked out at compile time."""

from nldsl.calculus.affine import Affine, LinearPart, affine_in, equal, scalar_value
from nldsl.calculus.classify import (
    DeltaForm,
    MapForm,
    TermClass,
    UpdateClass,
    classify_term,
    gate_expression,
    gate_logarithm,
    gate_name,
    gate_positive,
    update_class,
)
from nldsl.calculus.describe import Description, describe
from nldsl.calculus.differentiate import (
    MapGradient,
    NotDifferentiableError,
    OuterTerm,
    WeightGradient,
    cotangents,
    gradient,
)
from nldsl.calculus.evaluate import evaluate
from nldsl.calculus.expression import SYMBOL, Expr, depends, number, render, symbol, symbols, walk
from nldsl.calculus.lift import block_expression, lift, parameter_symbol, value_symbol, weight_symbol
from nldsl.calculus.normal import canonical
from nldsl.calculus.positive import not_negative, positive
from nldsl.calculus.rules import Momentum, RuleAnalysis, RuleForm, RuleSymbols, rule_form
from nldsl.calculus.simplify import apply, build, substitute
from nldsl.calculus.visit import Argument, Schedule, Step, schedule

__all__ = [
    "SYMBOL",
    "Affine",
    "Argument",
    "DeltaForm",
    "Description",
    "Expr",
    "LinearPart",
    "MapForm",
    "MapGradient",
    "Momentum",
    "NotDifferentiableError",
    "OuterTerm",
    "RuleAnalysis",
    "RuleForm",
    "RuleSymbols",
    "Schedule",
    "Step",
    "TermClass",
    "UpdateClass",
    "WeightGradient",
    "affine_in",
    "apply",
    "block_expression",
    "build",
    "canonical",
    "classify_term",
    "cotangents",
    "depends",
    "describe",
    "equal",
    "evaluate",
    "gate_expression",
    "gate_logarithm",
    "gate_name",
    "gate_positive",
    "gradient",
    "lift",
    "not_negative",
    "number",
    "parameter_symbol",
    "positive",
    "render",
    "rule_form",
    "scalar_value",
    "schedule",
    "substitute",
    "symbol",
    "symbols",
    "update_class",
    "value_symbol",
    "walk",
    "weight_symbol",
]
