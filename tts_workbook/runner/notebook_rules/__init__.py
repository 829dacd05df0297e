"""What rules on the claims of a notebook: one file and one function for each, apart from its cells.

    rule(numbers) -> items

A rule gets what the notebook measured and returns the items of its verdict. No item has a verdict
written into it; tests flip the numbers and see the verdicts flip. `effect_items` turns an effect, a
level or a count into an item; `ablation` is the rule of notebook 06.
"""
