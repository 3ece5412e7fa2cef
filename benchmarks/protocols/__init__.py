"""Fixed protocols on public data sets, by which any registered retriever is fitted, tuned and evaluated.

lines.py              files → lists of ids; errors name file and line
line_order.py         lines → whether they are in the order of time
order_variants.py     how well that works, on files and their lines in other orders
datasets.py           lists → events to fit on and labeled requests, for each format
protocol.py           a model and labeled requests → metrics
coordinate_search.py  hyper-parameters by coordinate search on the validation part
staged_search.py      the same within a budget that would cut it: first on a part of the lines
models.py             names → retrievers that fit the format
blending.py           weights of a blend from cached scores of its parts
run.py                all models of one run
table.py              terminal output and JSON
"""
