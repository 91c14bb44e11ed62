package repo

// Meta is the repository that w writes to.
func (w *Writer) Meta() *Meta { return w.m }
