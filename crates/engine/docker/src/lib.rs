//! Containers, networks and volumes as Docker knows them: their records, their life, what they tell.
