package main

import (
	nrkubernetes "github.com/dapr/components-contrib/nameresolution/kubernetes"
	"github.com/dapr/components-contrib/nameresolution/nameformat"
	nrsqlite "github.com/dapr/components-contrib/nameresolution/sqlite"
	pubsubkafka "github.com/dapr/components-contrib/pubsub/kafka"
	pubsubredis "github.com/dapr/components-contrib/pubsub/redis"
	"github.com/dapr/components-contrib/secretstores/hashicorp/vault"
	secretkubernetes "github.com/dapr/components-contrib/secretstores/kubernetes"
	secretenv "github.com/dapr/components-contrib/secretstores/local/env"
	secretfile "github.com/dapr/components-contrib/secretstores/local/file"
	"github.com/dapr/components-contrib/state/postgresql/v2"
	stateredis "github.com/dapr/components-contrib/state/redis"
	statesqlite "github.com/dapr/components-contrib/state/sqlite"
	"github.com/dapr/dapr/pkg/components"
	"github.com/dapr/dapr/pkg/components/nameresolution"
	"github.com/dapr/dapr/pkg/components/pubsub"
	"github.com/dapr/dapr/pkg/components/secretstores"
	"github.com/dapr/dapr/pkg/components/state"
	"github.com/dapr/dapr/pkg/runtime/registry"
	"github.com/dapr/kit/logger"
)

// Made before main configures all loggers.
var contrib = logger.NewLogger("dapr.contrib")

// registered returns the components that a component file may name as its type.
func registered() *registry.Options {
	states := state.NewRegistry()
	states.Logger = contrib
	states.RegisterComponent(statesqlite.NewSQLiteStateStore, "sqlite")
	states.RegisterComponent(stateredis.NewRedisStateStore, "redis")
	// Version 1 keeps its etags where only PostgreSQL finds them; version 2 is the one to begin with.
	states.RegisterComponentWithVersions("postgresql", components.Versioning{
		Preferred: components.VersionConstructor{Version: "v2", Constructor: postgresql.NewPostgreSQLStateStore},
		Default:   "v2",
	})

	brokers := pubsub.NewRegistry()
	brokers.Logger = contrib
	brokers.RegisterComponent(pubsubredis.NewRedisStreams, "redis")
	brokers.RegisterComponent(pubsubkafka.NewKafka, "kafka")

	secrets := secretstores.NewRegistry()
	secrets.Logger = contrib
	secrets.RegisterComponent(secretfile.NewLocalSecretStore, "local.file")
	secrets.RegisterComponent(secretenv.NewEnvSecretStore, "local.env")
	secrets.RegisterComponent(secretkubernetes.NewKubernetesSecretStore, "kubernetes")
	secrets.RegisterComponent(vault.NewHashiCorpVaultSecretStore, "hashicorp.vault")

	names := nameresolution.NewRegistry()
	names.Logger = contrib
	names.RegisterComponent(nrsqlite.NewResolver, "sqlite")
	names.RegisterComponent(nameformat.NewResolver, "nameformat")
	names.RegisterComponent(nrkubernetes.NewResolver, "kubernetes")

	return registry.NewOptions().
		WithStateStores(states).
		WithPubSubs(brokers).
		WithSecretStores(secrets).
		WithNameResolutions(names)
}
