"""A model as a service on a network: ``build_app`` makes the application of a ``Model``.

Uploaded files come in, JSON and a page for a person go out. Nothing is written to a disk: uploads stay in
memory, each is decoded in a process that may die of it, and those that wait go through the network together.
"""
