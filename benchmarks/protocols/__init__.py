"""Public data sets with fixed protocols, on which any registered retriever is fitted, tuned and scored.

lines.py      files → lists of ids, with errors that name file and line
datasets.py   lists → what models are fitted on, and the questions they are asked, per format
protocol.py   a model and questions → metrics
tuning.py     hyper-parameters by coordinate search on the validation part
models.py names → models that fit the format
blending.py   weights of a blend from cached scores of its parts
run.py        the whole of it
table.py      what is printed and written
"""
