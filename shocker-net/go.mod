module shocker.sh/shocker-net

go 1.26

require shocker.sh/lib v0.0.0
