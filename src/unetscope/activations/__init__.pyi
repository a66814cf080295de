from .capture import stream as stream
