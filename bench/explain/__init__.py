"""Why a model said what it said: attributions, and whether they are worth anything.

An explanation gives every word of a text a number: how much it spoke for the answer. Such numbers are cheap to
print and easy to believe, so nearly all of this room is about doubting them:

    texts.py         a text in words, and what shipped bytes answer when some of them are hidden
    cut.py           the same of the float model, with gradients, at the feature cut
    explainers.py    five attributions: gradient x input, integrated gradients, leave-one-out, occlusion, Shapley
    faithfulness.py  does the model depend on the words that are named? scores with exact bounds, random beside them
    agreement.py     do two explanations agree? a student's with its teacher's, one text's with its attacked copy's
    masks.py         the smallest changes by hiding: words that preserve, promote or attack an answer
    truth.py         models whose reasons are known because they were planted, and models that know nothing
    survey.py        all of it over many texts of a saved model
    scores.py        the result as records; a column of the board each
    report.py        rows side by side, and what a scheme changes, as one Markdown document
    show.py          a coloured sentence on a terminal, and one self-contained page

Gradients are those of the float weights, and so are integrated gradients, gradient x input and the masks. The other
explainers, and every score of faithfulness, ask the deployed bytes, with words hidden one by one or many: so whatever
explained the model, it is the one that ships that must depend on the words.
"""
