package repo

import "context"

func (m *Meta) warnEpochs(ctx context.Context) {}
