package container

import (
	"errors"
	"io/fs"
	"os"

	"shocker.sh/lib/record"
	"shocker.sh/lib/stage"
	"shocker.sh/lib/store"
)

// SweepNames gives back the names of containers that are not there, which a
// power cut or a hand has left. One that is being made has its run dir before
// its name.
func SweepNames(host stage.Host, st *store.Store) error {
	entries, err := os.ReadDir(st.Path("names"))
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range entries {
		path := st.Path("names", e.Name())
		id, err := os.ReadFile(path)
		if err == nil && record.CheckID(string(id)) == nil {
			there, err2 := anyExists(st.Container(string(id)), host.RunDir(string(id)))
			if there || err2 != nil {
				errs = append(errs, err2)
				continue
			}
		}
		if err == nil {
			err = os.Remove(path)
		}
		if !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func anyExists(paths ...string) (bool, error) {
	for _, path := range paths {
		if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
			return err == nil, err
		}
	}
	return false, nil
}
