module shocker.sh/shocker-cg

go 1.26.0

require shocker.sh/lib v0.0.0
