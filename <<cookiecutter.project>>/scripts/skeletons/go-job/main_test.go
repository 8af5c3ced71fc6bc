package main

import "testing"

func TestItSaysHowManyThingsItDid(t *testing.T) {
	if count, err := work(t.Context()); count != 0 || err != nil {
		t.Errorf("%d %v", count, err)
	}
}
