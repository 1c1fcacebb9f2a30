module reconciler.local/ci/compose/v2

go 1.26.8
