"""The model repository on disk, and the text of a config.pbtxt.

    repository      the models that there are
    staging         our own copy of them, in which candidates' configs are put
    deploy          the user's config.pbtxt, replaced on request
    config          ModelConfig: a text, what it means, and edits by field path
    interface       what a model takes and gives
    tunable, diff   which models can be tuned; what an edit changed

Behind `config`: `pbtxt` makes a tree of the text (of `tokens` and `literals`), `paths` finds fields in it by what
`schema` knows of them, `edits` splices it (with `insertion`, `removal` and the habits of `layout`), `semantics` reads
it into a protobuf, and `expectation` makes the same edit there, to hold the text's against.
"""
