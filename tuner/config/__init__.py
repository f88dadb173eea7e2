"""The model repository on disk, and the text of a config.pbtxt.

    repository      the models of a repository
    staging         a copy of the repository, for the configs of candidates
    deploy          the user's config.pbtxt, replaced on request
    config          ModelConfig: the text of a config, its meaning, and edits by field path
    interface       the inputs and outputs of a model
    tunable, diff   which models can be tuned; what an edit changed

`config` uses these modules: `pbtxt` parses the text into a syntax tree (with `tokens` and `literals`). `paths` finds
fields in the tree, and `schema` knows their types. `edits` changes the text (with `insertion` and `layout`).
`semantics` reads the text into a protobuf. `expectation` makes the same edit on plain data, and the edited text must
equal it.
"""
