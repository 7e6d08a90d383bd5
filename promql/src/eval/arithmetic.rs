//! The binary operators of the AST on numbers.

use crate::functions::arithmetic::{ArithmeticOp, CompareOp};
use crate::parse::ast::BinaryOp;

/// What a binary operator does to two numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NumberOp {
    /// Gives a number.
    Arithmetic(ArithmeticOp),
    /// Holds or not.
    Compare(CompareOp),
}

/// Of `op`; `None` for those that do not work on numbers.
pub(crate) fn number_op(op: BinaryOp) -> Option<NumberOp> {
    use NumberOp::{Arithmetic, Compare};
    Some(match op {
        BinaryOp::Add => Arithmetic(ArithmeticOp::Add),
        BinaryOp::Sub => Arithmetic(ArithmeticOp::Sub),
        BinaryOp::Mul => Arithmetic(ArithmeticOp::Mul),
        BinaryOp::Div => Arithmetic(ArithmeticOp::Div),
        BinaryOp::Mod => Arithmetic(ArithmeticOp::Mod),
        BinaryOp::Pow => Arithmetic(ArithmeticOp::Pow),
        BinaryOp::Atan2 => Arithmetic(ArithmeticOp::Atan2),
        BinaryOp::Eq => Compare(CompareOp::Eql),
        BinaryOp::Ne => Compare(CompareOp::Neq),
        BinaryOp::Le => Compare(CompareOp::Lte),
        BinaryOp::Lt => Compare(CompareOp::Lss),
        BinaryOp::Ge => Compare(CompareOp::Gte),
        BinaryOp::Gt => Compare(CompareOp::Gtr),
        BinaryOp::And | BinaryOp::Or | BinaryOp::Unless => return None,
        BinaryOp::TrimUpper | BinaryOp::TrimLower => return None,
    })
}

/// `left op right` between scalars, where a comparison gives 0 or 1.
pub(crate) fn scalar_binary(op: BinaryOp, left: f64, right: f64) -> f64 {
    match number_op(op) {
        Some(NumberOp::Arithmetic(op)) => op.apply(left, right),
        Some(NumberOp::Compare(op)) => f64::from(u8::from(op.apply(left, right))),
        // The parser does not let them stand between scalars.
        None => f64::NAN,
    }
}
