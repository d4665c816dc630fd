"""Class activation maps: where a network looked, drawn over the radiograph."""
