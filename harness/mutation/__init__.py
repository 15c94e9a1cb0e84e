"""Does the conformance suite notice broken source?"""
