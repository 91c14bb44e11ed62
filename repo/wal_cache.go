package repo

type sidecarCache struct{}
