//! Resource kinds, conditions, reasons and wire types of Leeward: data only.
