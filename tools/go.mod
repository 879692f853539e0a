module shocker.sh/tools

go 1.26.0

require (
	github.com/opencontainers/image-spec v1.1.1
	github.com/opencontainers/runtime-spec v1.3.0
	github.com/urfave/cli/v2 v2.27.7
	golang.org/x/sys v0.49.0
	shocker.sh/lib v0.0.0
	shocker.sh/shocker-cg v0.0.0
	shocker.sh/shocker-net v0.0.0
	shocker.sh/shocker-pull v0.0.0
	shocker.sh/shocker-run v0.0.0
)
