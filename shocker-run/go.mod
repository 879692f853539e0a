module shocker.sh/shocker-run

go 1.26.0

require (
	github.com/opencontainers/runtime-spec v1.3.0
	golang.org/x/sys v0.49.0
	shocker.sh/lib v0.0.0
)

