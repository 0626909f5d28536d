"""Ready-made functions of texts, one factory in each file, for subject.black_boxes in a run file.

[subject.black_boxes.sea]
call = "pipeline.black_boxes.concept:concept"
arguments = { concepts = ["the sea", "anger"] }
units = 2
"""
