module shocker.sh/shocker-run

go 1.26

require shocker.sh/lib v0.0.0
